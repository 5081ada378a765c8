"""One visit to each of many machines, through engines that exist: the user's own ssh, or Slurm. Nothing here opens a connection by itself."""
