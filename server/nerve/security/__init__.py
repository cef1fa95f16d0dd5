"""Who may ask, and TLS: files of keys and certificates, read again when they change."""
