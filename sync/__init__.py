"""How devices agree and how bytes travel. Today: who this device is."""
