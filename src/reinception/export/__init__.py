"""Export: a model as one file for another runtime, with its preprocessing inside, proved on real images."""
