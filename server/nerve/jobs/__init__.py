"""Requests that are answered later: kept until they are done, their answers sent to webhooks."""
