//go:build unix

package command

import (
	"os"
	"syscall"
)

// hasOtherNames reports whether a file has more than one hard link.
func hasOtherNames(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink > 1
}

// keepOwner gives a new file the owner and the group of another one.
func keepOwner(f *os.File, info os.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if current, ok := mine.Sys().(*syscall.Stat_t); ok && current.Uid == owner.Uid && current.Gid == owner.Gid {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
