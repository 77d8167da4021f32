"""Gains of tissues that give a scan the SNR and contrast asked for."""
