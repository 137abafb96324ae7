"""Other people's Inception-v3 files: how they name its tensors, whose a file is, and the way in and out."""
