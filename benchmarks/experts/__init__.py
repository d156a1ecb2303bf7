"""Experiments on what decides: do experts and aggregator help beyond refitting a head, on vectors of encoders?"""
