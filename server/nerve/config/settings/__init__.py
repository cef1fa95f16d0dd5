"""The daemon's settings, a module a subject; `config/server.py` puts them together."""
