"""What the machine gives: files written whole or not at all, signals, CPUs, lines on the terminal.

Imports nothing else of this project.
"""
