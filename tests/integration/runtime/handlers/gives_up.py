import sys

sys.exit("this module gives up")
