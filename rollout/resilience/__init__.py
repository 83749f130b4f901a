"""How to send so that an answer comes back: pure policies, driven by loops that do the sending."""
