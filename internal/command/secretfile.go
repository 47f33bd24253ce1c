package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxSecretFile is the maximum size of a file with secrets in bytes: gateways read no more.
const maxSecretFile = 1 << 20

// rewriteSecretFile replaces the content of a file with what change returns. Nobody can see a
// half-written file: the new content is written beside it, with the same owner and mode, and
// then renamed. If change returns an error, the file stays as it is.
func rewriteSecretFile(name string, change func(text string) (string, error)) (err error) {
	// Follow links: to rename over a link would cut it off from its target.
	file, err := filepath.EvalSymlinks(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("does not exist; make it with `(umask 077; caddy tollgate keygen > %s)`", name)
		}
		return withoutPath(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("is not a file")
	}
	if hasOtherNames(info) {
		return errors.New("has other names (hard links), which would keep the previous content; remove them, or use symbolic links")
	}
	// The name is always the same, so that two commands cannot change the file at once.
	beside := file + ".rolling"
	next, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // G304: the operator names the file
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists: another command is changing the file, or was interrupted; if none is running, delete that file", beside)
		}
		return fmt.Errorf("cannot write beside the file: %w", withoutPath(err))
	}
	defer func() {
		if err != nil {
			next.Close()      //nolint:errcheck,gosec // the content is not used
			os.Remove(beside) //nolint:errcheck,gosec // the next call says that it exists
		}
	}()
	text, err := readSecretFile(file)
	if err != nil {
		return err
	}
	if text, err = change(text); err != nil {
		return err
	}
	if err := writeAs(next, info, text); err != nil {
		return fmt.Errorf("cannot write beside the file: %w", withoutPath(err))
	}
	return withoutPath(os.Rename(beside, file))
}

func readSecretFile(file string) (string, error) {
	f, err := os.Open(file) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return "", withoutPath(err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil && len(text) > maxSecretFile {
		err = errors.New("is too large")
	}
	return string(text), err
}

// writeAs writes the whole content of a new file, which gets the owner and the mode of
// another one, and closes it.
func writeAs(f *os.File, info os.FileInfo, text string) error {
	if err := keepOwner(f, info); err != nil {
		return fmt.Errorf("keeping the owner (run the command as the owner or as root): %w", err)
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// withoutPath returns the reason of an error of the file system. Messages name the file
// already.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
