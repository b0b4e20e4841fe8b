"""Holds a sequence's keys and values where the policy says, and counts every byte."""
