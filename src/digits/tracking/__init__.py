"""MLflow: runs, logged models and the registry."""
