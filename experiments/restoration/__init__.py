"""Images through a trained model: from files to tiles, to a SavedModel or a server, and back."""
