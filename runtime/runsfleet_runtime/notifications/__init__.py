"""What the fleet tells people in a chat: alarms that change their state, and plain texts."""
