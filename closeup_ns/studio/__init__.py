"""The glue to nerfstudio: pipeline, datamanager, trainer, loading."""
