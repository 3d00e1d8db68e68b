"""The front end: the objects that a user describes a network with."""
