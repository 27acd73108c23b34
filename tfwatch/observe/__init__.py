"""What the daemon shows of itself: journal, systemd's status line, and the state that `tfwatch status` reads."""
