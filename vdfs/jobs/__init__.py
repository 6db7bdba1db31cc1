"""Long work as durable jobs: listed, watched, paused, resumed after a crash, remembered."""
