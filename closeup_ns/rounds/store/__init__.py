"""The files of a run's rounds."""
