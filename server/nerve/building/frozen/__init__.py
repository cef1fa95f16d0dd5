"""What PyInstaller is told to put into a built program."""
