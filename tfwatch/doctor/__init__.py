"""`tfwatch doctor`: everything a delivery needs, tried out; nothing that stays is changed."""
