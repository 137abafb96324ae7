"""How eight libraries name and store the tensors of Inception-v3."""
