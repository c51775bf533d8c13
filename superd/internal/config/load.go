package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// largestFile bounds the work that a file can cause (superd.yaml(5)).
const largestFile = 8 << 20

// Load reads and checks the file at path. The error is Problems, with all
// that is wrong with the file, or tells why the file cannot be read.
func Load(path string, sys System) (*Config, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, sys)
}

// Read takes a file of the administrator's choice, which may be a pipe, as Load
// does. The text is checked by Parse.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, bareError(err))
	}
	defer f.Close()
	data, err := readAll(f, largestFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return data, nil
}

// readAll stops one byte after the bound: others refuse what is too large.
func readAll(f *os.File, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	return data, bareError(err)
}

// bareError drops the path and the system call, which our message has.
func bareError(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Parse checks a file's content; name is what its messages call it. The error
// is Problems.
func Parse(name string, data []byte, sys System) (*Config, error) {
	d := newDecoder(name, sys)
	root := d.document(data)
	if root == nil {
		return nil, d.problems.err()
	}
	c := d.config(root)
	d.problems.Sort()
	d.warnings.Sort()
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	c.Warnings, c.Text = d.warnings, data
	return c, nil
}
