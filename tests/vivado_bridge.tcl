# Sources a script in a plain Tcl interpreter; every command that Tcl itself does not know is asked of the process that started this one
# (tests/vivado_model.py): one line out, its words in hexadecimal; one line back, "ok" or "error" and a word.

proc unknown {args} {
  set words {}
  foreach word $args {
    lappend words [binary encode hex [encoding convertto utf-8 $word]]
  }
  puts "call:[join $words ,]"
  flush stdout
  lassign [split [gets stdin] :] verdict word
  set answer [encoding convertfrom utf-8 [binary decode hex $word]]
  if {$verdict ne "ok"} {
    error $answer
  }
  return $answer
}

set script [lindex $argv 0]
set argv [lrange $argv 1 end]
if {[catch {source $script}]} {
  puts stderr $errorInfo
  exit 1
}
