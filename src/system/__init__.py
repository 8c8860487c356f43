"""The machine: complete files, signals, CPUs, lines on the terminal. Imports nothing else of this project."""
