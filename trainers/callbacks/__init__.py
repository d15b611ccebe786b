"""Records of a training: `metrics.jsonl`, TensorBoard, a progress bar."""
