"""A trained model over HTTP: an API, the Open Inference Protocol, and a page."""
