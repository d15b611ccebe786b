"""The process of a training: its errors and exit codes, files, signals and sign of life."""
