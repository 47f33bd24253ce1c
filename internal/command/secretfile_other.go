//go:build !unix

package command

import "os"

// hasOtherNames is false: links are not looked at here.
func hasOtherNames(os.FileInfo) bool { return false }

// keepOwner does nothing: the new file inherits its permissions from the folder.
func keepOwner(*os.File, os.FileInfo) error { return nil }
