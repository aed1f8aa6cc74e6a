"""Experiments: protocols as data, one method on one scene, and the tables made of them."""
