"""What shows a bundle's speed in a person's hand: an app for Android, a page for browsers, a folder for iOS."""
