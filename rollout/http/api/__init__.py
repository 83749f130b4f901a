"""The JSON API under `/api`, one router a subject."""
