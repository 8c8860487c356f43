"""Lightning callbacks: score files, sample images, checkpoints, latency, progress."""
