"""Tests, by module."""
