"""Using a trained network: the engine, evaluation, prediction, features, class-activation maps."""
