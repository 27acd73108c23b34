"""Services to practise against: a transcription portal and a Sheets service over real HTTP, with faults on demand."""
