"""Engines that run the encoder of a model."""
