"""What each release stores and sends, one file for each document, message and event, as written."""
