// What a browser runs that knows no modules, in words as old as that.

document.getElementById("old").hidden = false;
