"""Adapting an autoregressive base: what teaches a drafter, and what teaches the clean path to edit."""
