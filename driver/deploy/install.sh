#!/usr/bin/env bash
# Installs the release that this script lies in, beside the ones before, and switches the service to it.
#
#   PREFIX/releases/ID         a release: the archive's files, a virtual environment, and .complete once it is whole
#   PREFIX/current, previous   links to releases; `current` changes in one rename
#   PREFIX/quarkwave.toml      the settings: the user's, written once
#   PREFIX/answering           ID of the release that the service was restarted with and gave right answers with
#
# Nothing that runs is touched before the switch. A run that was killed, at any moment, is finished by the next one.
set -euo pipefail

usage() {
  cat <<'END'
usage: install.sh [OPTION]...            install this release and switch the service to it; may be run again
       install.sh --rollback [OPTION]... switch back to the release before
       install.sh --uninstall [OPTION].. remove all releases and the service; settings and notebooks stay

  --prefix DIR     where releases go (default /opt/quarkwave, as root)
  --units DIR      folder of the systemd unit (default: systemd's, as root where systemd runs; without it, start PREFIX/current/serve)
  --python FILE    interpreter, 3.10 or 3.11 (default: that of the PYNQ image, else the first found)
  --pynq DIR       virtual environment of a PYNQ image, whose pynq is used (default /usr/local/share/pynq-venv where it is)
  --wheels DIR     take the packages from this folder instead of the network
  --notebooks DIR  where the notebook goes (default /home/xilinx/jupyter_notebooks/quarkwave, as root where Jupyter is)
  --kernels DIR    Jupyter's folder of kernels (default /usr/local/share/jupyter/kernels, where a notebook is installed)
  --seconds N      how long the service may take to start (default 120)
END
}

say() { printf '%s\n' "$*"; }
step() { printf '[%s/7] %s\n' "$1" "$2"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

parse() {
  action=install prefix=/opt/quarkwave units='' python='' pynq='' wheels='' notebooks='' kernels='' seconds=120
  local root_folders=''
  if [ "$(id -u)" = 0 ]; then root_folders=yes; fi
  if [ -x /usr/local/share/pynq-venv/bin/python ]; then pynq=/usr/local/share/pynq-venv; fi
  if [ -n "$root_folders" ] && [ -d /run/systemd/system ]; then units=/etc/systemd/system; fi
  if [ -n "$root_folders" ] && [ -d /home/xilinx/jupyter_notebooks ]; then
    notebooks=/home/xilinx/jupyter_notebooks/quarkwave
    kernels=/usr/local/share/jupyter/kernels
  fi
  while [ $# -gt 0 ]; do
    case $1 in
      --rollback | --uninstall) action=${1#--} ;;
      --help | -h) usage && exit 0 ;;
      --prefix | --units | --python | --pynq | --wheels | --notebooks | --kernels | --seconds)
        [ $# -ge 2 ] || die "$1 needs a value; --help lists the options"
        printf -v "${1#--}" '%s' "$2"
        shift
        ;;
      *) die "there is no option $1; --help lists them" ;;
    esac
    shift
  done
  prefix=$(realpath -m -- "$prefix")
  # The prefix goes into a systemd unit and a JSON file, where other characters would need quoting.
  [[ $prefix =~ ^/[A-Za-z0-9_./+-]+$ ]] || die "the prefix may hold letters, digits and _ . / + - only: $prefix"
}

# What the archive is --------------------------------------------------------------------------------------------------

fact() { sed -n "s/^# $1: //p" "$source/MANIFEST"; }
listed() { sed -n 's/^[0-9a-f]\{64\}  //p' "$source/MANIFEST"; }

verify() {
  local damage extra
  [ -s "$source/MANIFEST" ] && [ -n "$(listed)" ] || die "$source has no MANIFEST: unpack the archive again"
  if ! damage=$(cd "$source" && LC_ALL=C sha256sum --check --quiet MANIFEST 2>/dev/null); then
    die "the archive is damaged; copy and unpack it again: ${damage//$'\n'/; }"
  fi
  extra=$(cd "$source" && LC_ALL=C comm -13 <(listed | LC_ALL=C sort) <(find . -path ./venv -prune -o -type f ! -path ./MANIFEST ! -path ./.complete \
    -printf '%P\n' | LC_ALL=C sort))
  [ -z "$extra" ] || die "the archive holds what its MANIFEST does not list; unpack it again: ${extra//$'\n'/; }"
}

settings() { # the file with the settings that hold: the user's, or the archive's where there are none yet
  if [ -e "$prefix/quarkwave.toml" ]; then echo "$prefix/quarkwave.toml"; else echo "$source/quarkwave.toml"; fi
}

need_bitstream() {
  if grep -q '^ *name *= *"board"' "$(settings)" && [ ! -e "$source/overlay/quarkwave.bit" ] && [ ! -e "$source/overlay/quarkwave.xclbin" ]; then
    die "the archive is without bitstream ($(fact bitstream)). For another device than the board, copy quarkwave.toml to $prefix and" \
      "name that device there"
  fi
}

# A release ------------------------------------------------------------------------------------------------------------

choose_python() {
  local candidate
  for candidate in ${python:+"$python"} ${pynq:+"$pynq/bin/python"} python3.11 python3.10 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12))' 2>/dev/null; then
      python=$candidate
      return
    fi
    [ "$candidate" != "$python" ] || die "$python is not Python 3.10 or 3.11"
  done
  die "needs Python 3.10 or 3.11: install it, or name it with --python"
}

copy_files() {
  if [ "$source" != "$release" ]; then
    rm -rf "$release"
    mkdir -p "$release"
    (cd "$source" && { listed && echo MANIFEST; } | xargs -d '\n' cp --preserve=mode,timestamps --parents -t "$release")
  fi
}

make_environment() {
  local wheel python_here=$release/venv/bin/python offline=()
  wheel=$(echo "$release"/quarkwave-*.whl)
  if [ -n "$wheels" ]; then offline=(--no-index --find-links "$(realpath -- "$wheels")"); fi
  rm -rf "$release/venv"
  if [ -n "$pynq" ]; then
    # The image's own pynq belongs to its kernel and XRT. It comes last in the search path, so what we bring goes before it.
    local where='import sysconfig; print(sysconfig.get_path("purelib"))'
    "$python" -m venv --system-site-packages "$release/venv"
    "$pynq/bin/python" -c "$where" >"$("$python_here" -c "$where")/pynq-image.pth"
    "$python_here" -m pip install --disable-pip-version-check --no-index --no-deps --ignore-installed "$wheel"
    "$python_here" -m pip install --disable-pip-version-check "${offline[@]}" "$wheel${kernels:+[notebook]}"
    "$python_here" -c 'import pynq' || die "$pynq has no pynq that works; --pynq names another environment, --pynq '' none"
  elif command -v uv >/dev/null; then
    uv venv --quiet --python "$python" "$release/venv"
    uv pip install --python "$python_here" "${offline[@]}" "${wheel}[board${kernels:+,notebook}]"
  else
    "$python" -m venv "$release/venv"
    "$python_here" -m pip install --disable-pip-version-check "${offline[@]}" "${wheel}[board${kernels:+,notebook}]"
  fi
}

check_release() { # the files, and the settings as the new software reads them
  local trial=$prefix/trial.toml # here, since paths in it are relative
  sed "s|\"current/|\"releases/$id/|" "$(settings)" >"$trial"
  (cd "$release" && venv/bin/python -m driver.deploy check . && venv/bin/python -m host_service check "$trial")
  rm "$trial"
}

# The switch -----------------------------------------------------------------------------------------------------------

target() { readlink "$prefix/$1" || true; }

release_before() { # `previous`, or what it should be when a run was killed between the two links
  local current name
  current=$(target current)
  for name in "$(target previous)" $(cd "$prefix" && printf '%s\n' releases/*); do
    if [ -n "$name" ] && [ "$name" != "$current" ] && [ -e "$prefix/$name/.complete" ]; then
      echo "$name"
      return
    fi
  done
}

point() { # point NAME TARGET: the link NAME, in one rename
  ln -sfn "$2" "$prefix/$1.new"
  mv -fT "$prefix/$1.new" "$prefix/$1"
}

put() { # put FILE: standard input becomes FILE, whole or not at all; `changed` says whether it was something else
  changed=''
  { mkdir -p "$(dirname "$1")" && cat >"$1.new"; } || die "cannot write $1"
  if cmp -s "$1.new" "$1"; then
    rm "$1.new"
  else
    mv -f "$1.new" "$1" || die "cannot write $1"
    changed=yes
  fi
}

write_settings() {
  if [ ! -e "$prefix/quarkwave.toml" ]; then put "$prefix/quarkwave.toml" <"$source/quarkwave.toml"; fi
  if [ -n "$units" ]; then
    put "$units/quarkwave.service" < <(sed "s|@PREFIX@|$prefix|g" "$source/quarkwave.service")
    if [ -n "$changed" ]; then rm -f "$prefix/answering"; fi # the service was not started by this unit
  fi
  if [ -n "$kernels" ]; then
    put "$kernels/quarkwave/kernel.json" <<END
{
  "argv": ["$prefix/current/venv/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
  "display_name": "Quarkwave",
  "language": "python",
  "env": {"QUARKWAVE": "$prefix/current"}
}
END
  fi
}

put_notebook() { # beside the user's own when that was changed
  local ours=$source/notebook/quarkwave.ipynb theirs=$notebooks/quarkwave.ipynb before=$prefix/previous/notebook/quarkwave.ipynb
  if [ -z "$notebooks" ]; then return; fi
  if [ -e "$theirs" ] && ! cmp -s "$theirs" "$before"; then theirs=$notebooks/quarkwave-$id.ipynb; fi
  if ! cmp -s "$ours" "$notebooks/quarkwave.ipynb"; then put "$theirs" <"$ours"; fi
}

switch() {
  local before
  before=$(target current)
  if [ "$before" = "releases/$id" ]; then before=$(release_before); fi
  if [ -n "$before" ] && [ "$before" != "$(target previous)" ]; then point previous "$before"; fi
  if [ "$(target current)" != "releases/$id" ]; then point current "releases/$id"; fi
}

restart() { # the service runs `current` and answers rightly; else fails
  if [ -z "$units" ]; then
    say "start the service: $prefix/current/serve"
    return
  fi
  if [ "$(cat "$prefix/answering" 2>/dev/null)" = "$id" ] && systemctl is-active --quiet quarkwave; then
    say "the service runs this release"
    return
  fi
  rm -f "$prefix/answering"
  # Descriptor 9 holds the lock, which nothing that is started here should keep.
  systemctl daemon-reload 9>&- && systemctl enable --quiet quarkwave 9>&- && systemctl restart quarkwave 9>&- || return 1
  (cd "$prefix/current" && venv/bin/python -m driver.deploy answer . --seconds "$seconds" --config "$prefix/quarkwave.toml") || return 1
  put "$prefix/answering" <<<"$id"
}

go_back() { # the new release does not answer rightly
  local before failed=$id
  rm "$prefix/releases/$failed/.complete"
  before=$(release_before)
  [ -n "$before" ] || die "release $failed does not answer as it should (journalctl -u quarkwave), and there is no release before"
  point current "$before"
  id=${before#releases/}
  restart || die "neither release $failed nor $id, which was running before, answers as it should (journalctl -u quarkwave)"
  die "release $failed does not answer as it should (journalctl -u quarkwave): $id serves again"
}

remove_old() {
  local name keep
  keep=$(release_before)
  for name in $(cd "$prefix" && printf '%s\n' releases/*); do
    if [ "$name" != "$(target current)" ] && [ "$name" != "$keep" ]; then rm -rf "${prefix:?}/$name"; fi
  done
}

# What can be asked for ------------------------------------------------------------------------------------------------

lock() {
  mkdir -p "$prefix/releases" 2>/dev/null && [ -w "$prefix" ] ||
    die "cannot write to $prefix: run this as root, or choose another place with --prefix"
  exec 9>>"$prefix/.lock"
  flock -n 9 || die "another installation into $prefix is running: wait for it"
}

run_install() {
  trap '[ $? = 0 ] || say "what was installed before was not touched" >&2' EXIT
  step 1 "checking the archive"
  verify
  need_bitstream
  id=$(fact version)-$(fact board)-$(sha256sum "$source/MANIFEST" | cut -c 1-12)
  release=$prefix/releases/$id
  if [ ! -e "$release/.complete" ]; then choose_python; fi
  lock
  if [ -e "$release/.complete" ]; then
    say "release $id is there already"
  else
    step 2 "copying release $id"
    copy_files
    step 3 "making its virtual environment"
    make_environment
    step 4 "checking it"
    check_release
    sync -f "$release" # a board may lose its power
    touch "$release/.complete"
  fi
  step 5 "writing settings"
  write_settings
  step 6 "switching"
  trap - EXIT
  switch
  put_notebook
  step 7 "restarting the service"
  restart || go_back
  remove_old
  say "installed: $prefix/current -> $(target current)"
}

run_rollback() {
  local old
  lock
  old=$(target current)
  id=$(release_before)
  id=${id#releases/}
  [ -n "$id" ] || die "there is no release before $(basename "${old:-any}") in $prefix"
  point current "releases/$id"
  point previous "$old"
  restart || die "release $id does not answer as it should: journalctl -u quarkwave"
  say "rolled back: $prefix/current -> $(target current)"
}

run_uninstall() {
  [ -d "$prefix/releases" ] || die "nothing is installed in $prefix"
  lock
  if [ -n "$units" ] && [ -e "$units/quarkwave.service" ]; then
    systemctl disable --quiet --now quarkwave 9>&-
    rm -f "$units/quarkwave.service"
    systemctl daemon-reload 9>&-
  fi
  if [ -n "$kernels" ]; then rm -rf "$kernels/quarkwave"; fi
  rm -rf "$prefix/current" "$prefix/previous" "$prefix/answering" "$prefix/releases" "$prefix/.lock"
  rmdir "$prefix" 2>/dev/null || say "$prefix keeps your settings"
  say "uninstalled"
}

main() {
  source=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
  parse "$@"
  case $action in
    install) run_install ;;
    rollback) run_rollback ;;
    uninstall) run_uninstall ;;
  esac
  exit # what follows in this file, should it be replaced meanwhile, is not read
}

main "$@"
