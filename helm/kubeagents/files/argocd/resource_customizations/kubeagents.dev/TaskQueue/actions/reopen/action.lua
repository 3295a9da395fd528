obj.spec.closed = false
return obj
