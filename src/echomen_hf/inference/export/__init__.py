"""Exported models: graph, quantisation, measured error and folder."""
