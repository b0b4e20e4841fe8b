"""Measurements beside what a user would pick instead. Nothing here is a test."""
