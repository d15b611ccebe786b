"""Export of trained models: SavedModels for servers, and other formats."""
