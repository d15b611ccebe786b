"""Where the images come from: photographs that scikit-image ships, or a person's own folder."""
