"""Checkers, a module a lab: ``lab02`` holds those of the notebook ``02_...``."""
