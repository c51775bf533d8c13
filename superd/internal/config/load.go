package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// largestFile bounds the work that a file can cause, together with those that it
// includes (superd.yaml(5)).
const largestFile = 8 << 20

// Files is what a configuration is made from, as it was when it was read: plain
// data, that somebody else can make the same of. Files of rules are not in it.
type Files struct {
	Path     string
	Text     []byte
	Included []Included // in the order in which they were read
	Followed bool       // Included is all that Text includes; else that has not been looked for
}

// Load reads and checks the file at path, with those that it includes. The
// error is Problems, with all that is wrong with them, or tells why the file
// cannot be read.
func Load(path string, sys System) (*Config, error) {
	f, err := Read(path, sys)
	if err != nil {
		return nil, err
	}
	return f.Parse(sys)
}

// Read takes a file of the administrator's choice, which may be a pipe, and
// those that it includes, as Load does. All that is wrong with them, also that one
// cannot be read, is for Parse to tell.
func Read(path string, sys System) (*Files, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	f := &Files{Path: path, Text: text}
	d := newDecoder(path, sys)
	if root := d.document(text); root != nil {
		f.follow(d.top(root).patterns(), sys)
	}
	return f, nil
}

func read(path string) ([]byte, error) {
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

// Same tells whether the same was read.
func (f *Files) Same(other *Files) bool {
	return f.Path == other.Path && bytes.Equal(f.Text, other.Text) && slices.EqualFunc(f.Included, other.Included, func(a, b Included) bool {
		return a.Path == b.Path && bytes.Equal(a.Text, b.Text) && a.Fault == b.Fault
	})
}

// Parse checks a file's content; name is what its messages call it. The error
// is Problems.
func Parse(name string, data []byte, sys System) (*Config, error) {
	return (&Files{Path: name, Text: data}).Parse(sys)
}

// Parse checks what was read. The error is Problems. What is included is read
// only where that was not done before; f stays as it is.
func (f *Files) Parse(sys System) (*Config, error) {
	d := newDecoder(f.Path, sys)
	root := d.document(f.Text)
	if root == nil {
		return nil, d.problems.err()
	}
	files := *f
	c := d.config(root, &files)
	problems, warnings := append(d.problems, d.ruleProblems...), append(d.warnings, d.ruleWarnings...)
	c.Sort(problems)
	c.Sort(warnings)
	if err := problems.err(); err != nil {
		return nil, err
	}
	c.Warnings = c.Once(warnings)
	return c, nil
}
