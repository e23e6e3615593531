"""Deviation-weighted preference training, DDPO and DORPO: a companion to arXiv:2503.17126.

The modules, in the order that data flows: corpus, pairs, embed, deviation, losses, models, trainer, draws, decoding,
engines, generate, quality, diversity, stats, analysis. Nothing is imported here, so that asking for one costs no more
than it needs.
"""
