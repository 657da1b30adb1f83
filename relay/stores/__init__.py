"""Where streams live: in this process's memory."""
